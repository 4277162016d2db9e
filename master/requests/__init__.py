"""From a request for packages to its answer: fields, refs, commits, who waits, whose turn it is, and progress."""
