"""What the sample fleets are made of: descriptions of hosts and guests, and what such hosts print when asked."""
