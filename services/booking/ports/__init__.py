"""What the operations need of the outside, as Protocols, a file for each part of the service."""
