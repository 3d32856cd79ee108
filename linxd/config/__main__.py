# SPDX-License-Identifier: MIT
"""The process that reads a scope's files for a daemon: ``python3 -I -S PATH-OF-THIS NAME [FILE]``."""

import os
import sys

if __name__ == "__main__":
    # Isolated, and without the site: nothing but Python's own modules and this very linxd.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from linxd.config.apart import main

    sys.exit(main(sys.argv[1:]))
