//! What to do (the pipeline file, strict) and how to run it here (settings, layered).
