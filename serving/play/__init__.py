"""`GET /play`: a page that shows the policy acting in its environment, step by step, as it answers everyone."""
