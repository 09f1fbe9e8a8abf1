"""`python -I -S …/keeper/__main__.py DIRECTORY [--ready-fd N] [--sweep]`: by path, no site-packages."""

import os
import sys

if __name__ == "__main__":
    # Isolated mode puts nothing on the path; appended, so that only this package is found there.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

    from supervisord_cp.keeper.run import main

    sys.exit(main(sys.argv[1:]))
