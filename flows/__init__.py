"""What runs when, and the command line."""

from configs import quiet

quiet.apply()
