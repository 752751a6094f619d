"""`GET /play`: a web page that shows the served policy acting in its environment, step by step."""
