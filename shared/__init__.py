"""What every service uses and none owns: contracts, and ports to the world."""
