from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('sessions_app', '0005_watched_sessions'),
    ]

    operations = [
        migrations.AddField(
            model_name='rental',
            name='rebooted_at',
            field=models.DateTimeField(null=True),
        ),
    ]
