"""``python -m fer_lightning`` is the command line program."""

from fer_lightning.cli import main

if __name__ == "__main__":
    main()
