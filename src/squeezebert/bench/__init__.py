"""Speed and memory beside the peers: takes contenders and cases, gives medians, ratios, a table and a picture."""
