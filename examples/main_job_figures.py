"""The pictures of the main job."""
import matplotlib

matplotlib.use("Agg")


def draw(result, folder, readme=None):
    pass
