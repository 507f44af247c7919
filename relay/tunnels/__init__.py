"""What is alive now: links of agents, the names they claimed, requests that wait for one to come back."""
