"""Program -> Program, one file a pass; `pipeline.py` runs them in order and verifies after each."""
