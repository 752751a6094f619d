"""`make loop`: a policy that was trained with too little is served, and what its clients report makes the next one."""
