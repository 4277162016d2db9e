"""The ground everything else stands on: names, keys and paths, standard library only."""
