"""The versions of each endpoint's model: installed beside the one that serves, accepted, served, let go."""
