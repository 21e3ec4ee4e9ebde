"""How tilewatch runs for real. A package only so that these files are installed, beside `flows`."""
