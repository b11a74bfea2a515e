"""Documents in memory: the tables of the engines that hold them, with indexes, log and clock."""
