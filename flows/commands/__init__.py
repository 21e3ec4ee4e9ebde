"""The commands of `tilewatch`, each module a group of them."""
