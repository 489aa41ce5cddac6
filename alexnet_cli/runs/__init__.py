"""The run folder, which holds what a training leaves behind: its files, and how they are read back.

Everything read here may come from a stranger and is checked before it is used. May import
`network`, `data`, `recipes` and `system`.
"""
