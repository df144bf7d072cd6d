"""`python -m container.worker`: how the supervisor starts the runtime."""

import sys

from container.worker.main import main

sys.exit(main())
