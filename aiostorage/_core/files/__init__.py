"""Files of stores and dumps: the path that was meant, what a file is, and the disk it is on."""
