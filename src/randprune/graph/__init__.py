"""From a module to its channel groups: export, label propagation, grouping, trial cuts."""
