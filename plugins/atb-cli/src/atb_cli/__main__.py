# SPDX-License-Identifier: Apache-2.0
"""`python -m atb_cli`, the same as `atb`."""

from __future__ import annotations

import sys

from atb_cli import main

if __name__ == "__main__":
    sys.exit(main())
