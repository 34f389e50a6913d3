"""Frozen specifications: what the files of the catalogue become, a module per section of the files.

Plain numbers, the unit in the name. Where a figure comes from is kept beside it in `provenance`, keyed by the
figure's path in the file (``peak.bf16``, ``memory[1].bandwidth``).

Files write an attribute without its unit: `kernel_launch_ps` is the key ``kernel_launch`` (`configs.fields`).
Attributes with `eq=False` are for people, or say how a run is carried out: no result depends on them.
"""
