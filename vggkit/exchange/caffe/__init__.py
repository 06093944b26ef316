"""Caffe's networks: `.prototxt` for the layers, `.caffemodel` for their weights as well."""
