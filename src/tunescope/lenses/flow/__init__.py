"""How information flows: attention rollout, and direct effects of parts on parts."""
