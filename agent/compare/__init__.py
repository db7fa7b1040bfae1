"""``overnight compare``: search methods × seeds under one budget, with significance tests."""
