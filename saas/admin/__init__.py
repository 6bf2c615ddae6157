"""The operator's desk: `fishserve saas admin`."""
