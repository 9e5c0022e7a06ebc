"""What code is made for: boards as data, instruction sets, C compilers, and what a linked program costs."""
