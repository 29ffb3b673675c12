"""Rows in files: text and HDF5 data sets, read and written block by block.

`prepare` turns LIBSVM text (`text_rows`, `text_lines`) or the LYRL2004 collection (`lyrl2004`) into one checked HDF5
file (`dataset_writer`), giving the two `classes` their labels; `dataset` opens that file (`dataset_file`), LIBSVM text
or the generated set for training and scoring. Nothing in here knows of MPI, of a model or of training.
"""
