"""A real one-machine Hadoop for `tony cluster start`: HDFS and YARN daemons on loopback, as the current user."""
