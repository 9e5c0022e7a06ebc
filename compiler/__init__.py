"""From a network and a learning rule to C. Read `pipeline.py` first."""
