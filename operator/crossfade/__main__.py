"""``python -m crossfade`` runs the operator."""

from crossfade.main import main

main()
