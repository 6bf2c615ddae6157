"""The operator's desk: `fishserve saas admin`, and /api/admin for the app's pages."""
