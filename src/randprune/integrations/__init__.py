"""Other people's trainers and models: one ecosystem a module, none imported unless asked for."""
