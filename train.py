"""The door: `python train.py` runs one cell, `python train.py -m data=a,b` a grid of them."""

import sys

from babeltune.door import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
