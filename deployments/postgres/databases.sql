-- Run once, when the volume is new, in the database `prefect`, which the image has made.
CREATE DATABASE mlflow;
