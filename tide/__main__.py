"""`python -m tide` is the `tide` command."""

from tide.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
