"""From received bytes to a served repository: uploads, verification, metadata, signatures and links."""
