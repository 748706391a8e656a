"""What puts the lakehouse on a machine: the stack of real parts (`deploy.stack`), containers, and their configuration."""
