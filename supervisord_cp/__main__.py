"""`python -m supervisord_cp` is the command line."""

from supervisord_cp.cli.main import main

if __name__ == "__main__":
    main()
