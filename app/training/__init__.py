"""`kronmodel train` as a background job."""
