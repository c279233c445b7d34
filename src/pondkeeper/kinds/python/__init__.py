"""Jobs of the kind `python`: a function decorated with `@pondkeeper.job`, and the context that it gets."""
