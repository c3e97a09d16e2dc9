"""Documents of S3."""


def document(*parts, root="CompleteMultipartUpload"):
    body = "".join(f"<Part><PartNumber>{n}</PartNumber><ETag>{e}</ETag></Part>" for n, e in parts)
    return f'<?xml version="1.0"?><{root} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{body}</{root}>'.encode()


MD5 = "d41d8cd98f00b204e9800998ecf8427e"
