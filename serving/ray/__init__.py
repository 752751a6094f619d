"""Ray and Ray Serve: settings, start and stop of a cluster, HAProxy, and every use of Ray's private parts."""
