//! One self-contained HTML page from one or more run folders.
