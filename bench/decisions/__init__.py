"""The decisions of Crossfade and of threshold rules on the same simulated traffic.

``python -m bench.decisions`` reruns the tables of the analysis and of its study with the shipped
code. See ``__main__`` for the options, ``traffic`` for what is simulated, ``tables`` for the rows.
"""
