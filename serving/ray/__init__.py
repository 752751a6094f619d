"""Ray and Ray Serve: settings, cluster start and stop, HAProxy, draining and autoscaling."""
