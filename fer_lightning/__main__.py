"""``python -m fer_lightning`` is the command line program."""

import sys

from fer_lightning.cli import main

if __name__ == "__main__":
    sys.exit(main())
