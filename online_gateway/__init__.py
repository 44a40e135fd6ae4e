"""The online door: dialects in front, one data plane behind, workers that dial in."""
